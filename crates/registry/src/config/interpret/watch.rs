//! The sections that watch: `notifications`, `health` and `validation`.

use std::time::Duration;

use regex_lite::Regex;

use super::http::tcp;
use super::{Found, View, web_url};
use crate::config::settings::{
    Address, Endpoint, FileCheck, Health, HttpCheck, IndexPlatforms, Notifications, Pace, Platform, TcpCheck, UrlRules,
    Validation,
};

/// Time between two checks where none is given.
const INTERVAL: Duration = Duration::from_secs(10);
/// Longest wait of a check where none is given; the original would wait for ever.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);
const ACTIONS: [&str; 4] = ["pull", "push", "mount", "delete"];

pub(super) fn notifications(section: &View<'_>, found: &mut Found) -> Notifications {
    let mut endpoints: Vec<Endpoint> = Vec::new();
    for (index, item) in section.get("endpoints").items().iter().enumerate() {
        if item.get("disabled").flag(false) {
            continue;
        }
        let endpoint = endpoint(item, index, found);
        if endpoints.iter().any(|other| other.name == endpoint.name) {
            let name = item.get("name");
            found.push(name.warning("two endpoints have this name; their metrics will be added up"));
        }
        endpoints.push(endpoint);
    }
    Notifications { include_references: section.get("events").get("includereferences").flag(false), endpoints }
}

fn endpoint(item: &View<'_>, index: usize, found: &mut Found) -> Endpoint {
    let (name, url, ignore) = (item.get("name"), item.get("url"), item.get("ignore"));
    if name.text().is_none() {
        found.push(name.warning(format!("is missing, `endpoint-{index}` is used")));
    }
    let actions = ignore.get("actions");
    for action in actions.items() {
        if action.text().is_some_and(|text| !ACTIONS.contains(&text)) {
            found.push(action.warning("no such action").hint(format!("the actions are {}", ACTIONS.join(", "))));
        }
    }
    let mut ignored_media_types = item.get("ignoredmediatypes").texts();
    ignored_media_types.extend(ignore.get("mediatypes").texts());
    Endpoint {
        name: name.text().map_or_else(|| format!("endpoint-{index}"), str::to_owned),
        url: checked_url(&url, found),
        headers: item.get("headers").headers(found),
        timeout: item.get("timeout").duration().unwrap_or(Duration::from_secs(1)),
        threshold: positive(&item.get("threshold"), 10),
        backoff: item.get("backoff").duration().unwrap_or(Duration::from_secs(1)),
        ignored_media_types,
        ignored_actions: actions.texts(),
    }
}

/// A number above zero, or the default, as the original does with zero and less.
fn positive(view: &View<'_>, default: u32) -> u32 {
    view.int().filter(|n| *n > 0).map_or(default, |n| u32::try_from(n).unwrap_or(u32::MAX))
}

fn checked_url(view: &View<'_>, found: &mut Found) -> String {
    let text = view.required(found);
    if let Err(problem) = web_url(&text, true)
        && !text.is_empty()
    {
        found.push(view.error(problem));
    }
    text
}

pub(super) fn health(section: &View<'_>, found: &mut Found) -> Health {
    let storage = section.get("storagedriver");
    let files = section
        .get("file")
        .items()
        .into_iter()
        .map(|item| FileCheck { file: item.get("file").required(found), interval: pace(&item).interval });
    let files = files.collect();
    let mut http = Vec::new();
    for item in section.get("http").items() {
        let status = item.get("statuscode");
        http.push(HttpCheck {
            uri: checked_url(&item.get("uri"), found),
            headers: item.get("headers").headers(found),
            status: match status.int() {
                None | Some(0) => 200,
                Some(code) => u16::try_from(code).ok().filter(|code| (100..600).contains(code)).unwrap_or_else(|| {
                    found.push(status.error("must be from 100 to 599"));
                    200
                }),
            },
            timeout: item.get("timeout").duration().unwrap_or(CHECK_TIMEOUT),
            pace: pace(&item),
        });
    }
    let mut checks = Vec::new();
    for item in section.get("tcp").items() {
        let addr = item.get("addr");
        let text = addr.required(found);
        let address = if text.is_empty() { Address { host: text, port: 0 } } else { tcp(&addr, &text, found) };
        checks.push(TcpCheck {
            address,
            timeout: item.get("timeout").duration().unwrap_or(CHECK_TIMEOUT),
            pace: pace(&item),
        });
    }
    Health { storage: storage.get("enabled").flag(false).then(|| pace(&storage)), files, http, tcp: checks }
}

fn pace(section: &View<'_>) -> Pace {
    Pace {
        interval: section.get("interval").duration().unwrap_or(INTERVAL),
        threshold: positive(&section.get("threshold"), 1),
    }
}

pub(super) fn validation(section: &View<'_>, found: &mut Found) -> Validation {
    let manifests = section.get("manifests");
    let (allow, deny) = (manifests.get("urls").get("allow"), manifests.get("urls").get("deny"));
    let rules = UrlRules { allow: patterns(&allow, found), deny: patterns(&deny, found) };
    let indexes = manifests.get("indexes");
    let (platforms, listed) = (indexes.get("platforms"), indexes.get("platformlist"));
    let choice = platforms.text().map(str::to_ascii_lowercase);
    if listed.is_set() && choice.as_deref() != Some("list") {
        found.push(listed.no_effect("`platforms` is not `list`"));
    }
    // `enabled` is the older switch and wins, as in the original.
    let on = section.get("enabled").flag(false) || !section.get("disabled").flag(false);
    if !on {
        return Validation { urls: None, index_platforms: IndexPlatforms::None };
    }
    let index_platforms = match choice.as_deref() {
        Some("none") => IndexPlatforms::None,
        Some("list") => {
            let platform = |item: &View<'_>| Platform {
                architecture: item.get("architecture").text().unwrap_or_default().to_owned(),
                os: item.get("os").text().unwrap_or_default().to_owned(),
            };
            IndexPlatforms::Listed(listed.items().iter().map(platform).collect())
        }
        _ => IndexPlatforms::All,
    };
    Validation { urls: Some(rules), index_platforms }
}

fn patterns(list: &View<'_>, found: &mut Found) -> Vec<Regex> {
    list.items().iter().filter_map(|item| pattern(item, found)).collect()
}

/// A regular expression; an absent text is the empty one, which matches everything.
pub(super) fn pattern(item: &View<'_>, found: &mut Found) -> Option<Regex> {
    match Regex::new(item.text().unwrap_or_default()) {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            let problem = item.error(format!("is no valid regular expression: {error}"));
            let classes = item.text().is_some_and(|text| text.contains("\\p"));
            found.push(if classes {
                problem.hint("Unicode classes such as \\p{L} are not supported")
            } else {
                problem
            });
            None
        }
    }
}
