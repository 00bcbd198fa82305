# Routines of this repository. `make help` lists them.
.DEFAULT_GOAL := help
.PHONY: help up down registry test check e2e image bench bench-om reference fuzz soak

help: ## List the routines
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

up: ## A cluster of this node, with the registry of docs/docker-private-registries.md as its first service
	@scripts/install-packages.sh up
	@scripts/up.sh

down: ## Take away what `make up` made, with its data
	@scripts/up.sh down

registry: ## Only the registry, on port 5000, with access control and TLS; without root and without Docker
	@scripts/install-packages.sh build
	@scripts/registry.sh

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

image: ## Build the images registry:latest and google/pause:latest and load them into the local engine
	@scripts/install-packages.sh build
	@scripts/image.sh
	@scripts/image.sh --image pause

bench: ## Measure against Debian's docker-registry and nginx
	@scripts/install-packages.sh bench
	cargo build --release --package registry
	cargo xtask bench

bench-om: ## Measure what a node of om costs, and its commands beside a shell's start
	@scripts/install-packages.sh build
	cargo build --release --package om
	cargo xtask bench-om

reference: ## Write the reference of om again from the tables of the program
	cargo build --package om
	target/debug/om reference commands > docs/om-commands.md
	target/debug/om reference keywords > docs/om-keywords.md
	target/debug/om reference man > packaging/om.1
