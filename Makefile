# Routines of this repository. `make help` lists them.
.DEFAULT_GOAL := help
.PHONY: help up down test check e2e image bench fuzz soak docs

help: ## List the routines
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

up: ## Build the registry and run it on port 5000, with access control and TLS
	@scripts/install-packages.sh build
	@scripts/up.sh

down: ## Stop what `make up` started
	@scripts/up.sh down

test: ## All tests: format, lints, tidy, unit, contract, in process, end to end
	@scripts/install-packages.sh test
	cargo fmt --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo xtask tidy
	cargo nextest run --workspace
	cargo build --package registry
	cargo xtask soak --for 2m --server target/debug/registry

check: ## The fast part of `make test`
	cargo fmt --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo xtask tidy
	cargo nextest run --workspace -E 'not binary(=e2e)'

fuzz: ## Fuzz every parser that a stranger reaches: `make fuzz SECONDS=60`
	@scripts/install-packages.sh fuzz
	@scripts/fuzz.sh all $(or $(SECONDS),60)

soak: ## Clients, kills and collections at once: `make soak FOR=1h`
	@scripts/install-packages.sh build
	cargo build --release --package registry
	cargo xtask soak --for $(or $(FOR),2m) --report target/soak.md

image: ## Build the image registry:latest and load it into the local engine
	@scripts/install-packages.sh build
	@scripts/image.sh

bench: ## Measure against Debian's docker-registry and nginx
	@scripts/install-packages.sh bench
	cargo build --release --package registry
	cargo xtask bench
