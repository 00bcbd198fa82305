//! Owns the options of `docker run` that `run_args` may have: what each means to the engine's API. Does not own those that
//! keywords have.

use serde_json::{Map, Value, json};

/// Changes to a container's specification.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Arguments {
    /// Fields of the specification itself.
    pub top: Map<String, Value>,
    /// Fields of its `HostConfig`.
    pub host: Map<String, Value>,
}

/// What the value of an option is made of.
#[derive(Clone, Copy)]
enum Form {
    /// None: the option says it all.
    Switch,
    Text,
    Number,
    /// Bytes, with a unit b, k, m or g.
    Size,
    /// Processors, with a fraction.
    Processors,
    /// Seconds.
    Seconds,
    /// Every use adds one.
    List,
    /// Every use adds a `key=value`.
    Pairs,
    /// `path[:options]`.
    Tmpfs,
    /// `name=soft[:hard]`.
    Limit,
    /// `[[address:]host:]port[/protocol]`.
    Port,
    /// `key=value` inside the object of this field.
    Nested(&'static str),
    /// A text in this field.
    Inside(&'static str),
}

/// Option, its short form or nothing, whether it is part of `HostConfig`, field, form.
const OPTIONS: &[(&str, &str, bool, &str, Form)] = &[
    ("--add-host", "", true, "ExtraHosts", Form::List),
    ("--cap-add", "", true, "CapAdd", Form::List),
    ("--cap-drop", "", true, "CapDrop", Form::List),
    ("--cgroup-parent", "", true, "CgroupParent", Form::Text),
    ("--cgroupns", "", true, "CgroupnsMode", Form::Text),
    ("--cpu-period", "", true, "CpuPeriod", Form::Number),
    ("--cpu-quota", "", true, "CpuQuota", Form::Number),
    ("--cpu-shares", "-c", true, "CpuShares", Form::Number),
    ("--cpus", "", true, "NanoCpus", Form::Processors),
    ("--cpuset-cpus", "", true, "CpusetCpus", Form::Text),
    ("--cpuset-mems", "", true, "CpusetMems", Form::Text),
    ("--device-cgroup-rule", "", true, "DeviceCgroupRules", Form::List),
    ("--dns", "", true, "Dns", Form::List),
    ("--dns-option", "", true, "DnsOptions", Form::List),
    ("--dns-search", "", true, "DnsSearch", Form::List),
    ("--group-add", "", true, "GroupAdd", Form::List),
    ("--init", "", true, "Init", Form::Switch),
    ("--interactive", "-i", false, "OpenStdin", Form::Switch),
    ("--label", "-l", false, "Labels", Form::Pairs),
    ("--log-driver", "", true, "LogConfig", Form::Inside("Type")),
    ("--log-opt", "", true, "LogConfig", Form::Nested("Config")),
    ("--memory", "-m", true, "Memory", Form::Size),
    ("--memory-reservation", "", true, "MemoryReservation", Form::Size),
    ("--memory-swap", "", true, "MemorySwap", Form::Size),
    ("--memory-swappiness", "", true, "MemorySwappiness", Form::Number),
    ("--oom-kill-disable", "", true, "OomKillDisable", Form::Switch),
    ("--oom-score-adj", "", true, "OomScoreAdj", Form::Number),
    ("--pids-limit", "", true, "PidsLimit", Form::Number),
    ("--publish", "-p", true, "PortBindings", Form::Port),
    ("--read-only", "", true, "ReadonlyRootfs", Form::Switch),
    ("--runtime", "", true, "Runtime", Form::Text),
    ("--security-opt", "", true, "SecurityOpt", Form::List),
    ("--shm-size", "", true, "ShmSize", Form::Size),
    ("--stop-signal", "", false, "StopSignal", Form::Text),
    ("--stop-timeout", "", false, "StopTimeout", Form::Seconds),
    ("--storage-opt", "", true, "StorageOpt", Form::Pairs),
    ("--sysctl", "", true, "Sysctls", Form::Pairs),
    ("--tmpfs", "", true, "Tmpfs", Form::Tmpfs),
    ("--tty", "-t", false, "Tty", Form::Switch),
    ("--ulimit", "", true, "Ulimits", Form::Limit),
    ("--userns", "", true, "UsernsMode", Form::Text),
];

/// Reads the words.
///
/// # Errors
/// The option or the value that is not taken, and what is; for people.
pub fn parse(words: &[String]) -> Result<Arguments, String> {
    let mut arguments = Arguments::default();
    let mut words = words.iter().map(String::as_str);
    while let Some(word) = words.next() {
        let (option, inline) = match word.split_once('=') {
            Some((option, value)) if option.starts_with("--") => (option, Some(value)),
            _ => (word, None),
        };
        // `-it` and the like are switches in one word.
        if let Some(letters) = option.strip_prefix('-')
            && !option.starts_with("--")
            && letters.len() > 1
        {
            for letter in letters.chars() {
                let known = find(&format!("-{letter}")).filter(|(.., form)| matches!(form, Form::Switch));
                let Some((_, _, in_host, field, _)) = known else { return Err(unknown(word)) };
                arguments.fields(in_host).insert(field.to_owned(), Value::Bool(true));
            }
            continue;
        }
        let Some((name, _, in_host, field, form)) = find(option) else { return Err(unknown(option)) };
        if let Form::Switch = form {
            let on = match inline {
                None | Some("true" | "1") => true,
                Some("false" | "0") => false,
                Some(other) => return Err(format!("run_args: `{name}={other}` is neither true nor false")),
            };
            arguments.fields(in_host).insert(field.to_owned(), Value::Bool(on));
            continue;
        }
        let Some(value) = inline.or_else(|| words.next()) else { return Err(format!("run_args: {name} has no value")) };
        let wrong = || format!("run_args: `{value}` is no value for {name}");
        arguments.add(in_host, field, form, value).ok_or_else(wrong)?;
    }
    Ok(arguments)
}

type Row = (&'static str, &'static str, bool, &'static str, Form);

fn find(option: &str) -> Option<Row> {
    OPTIONS.iter().copied().find(|(long, short, ..)| *long == option || (!short.is_empty() && *short == option))
}

fn unknown(option: &str) -> String {
    let all: Vec<&str> = OPTIONS.iter().map(|(long, ..)| *long).collect();
    format!("run_args: `{option}` is not taken; these are: {}", all.join(" "))
}

impl Arguments {
    fn fields(&mut self, in_host: bool) -> &mut Map<String, Value> {
        if in_host { &mut self.host } else { &mut self.top }
    }

    fn add(&mut self, in_host: bool, field: &str, form: Form, value: &str) -> Option<()> {
        let object = |map: &mut Map<String, Value>, name: &str| -> Option<Map<String, Value>> {
            Some(map.get(name).and_then(Value::as_object).cloned().unwrap_or_default())
        };
        let pair = || value.split_once('=').filter(|(key, _)| !key.is_empty());
        let made = match form {
            Form::Switch => Value::Bool(true),
            Form::Text => json!(value),
            Form::Number => json!(value.parse::<i64>().ok()?),
            Form::Size => json!(size(value)?),
            Form::Processors => {
                let (whole, part) = value.split_once('.').unwrap_or((value, ""));
                let part: String = part.chars().chain("000000000".chars()).take(9).collect();
                let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
                json!(whole.checked_mul(1_000_000_000)?.checked_add(part.parse().ok()?).filter(|nanos| *nanos > 0)?)
            }
            Form::Seconds => json!(value.parse::<u32>().ok()?),
            Form::List => {
                let mut list = self.fields(in_host).get(field).and_then(Value::as_array).cloned().unwrap_or_default();
                list.push(json!(value));
                Value::Array(list)
            }
            Form::Pairs => {
                let mut all = object(self.fields(in_host), field)?;
                let (key, value) = pair()?;
                all.insert(key.to_owned(), json!(value));
                Value::Object(all)
            }
            Form::Tmpfs => {
                let mut all = object(self.fields(in_host), field)?;
                let (path, options) = value.split_once(':').unwrap_or((value, ""));
                path.starts_with('/').then_some(())?;
                all.insert(path.to_owned(), json!(options));
                Value::Object(all)
            }
            Form::Limit => {
                let mut list = self.fields(in_host).get(field).and_then(Value::as_array).cloned().unwrap_or_default();
                let (name, limits) = pair()?;
                let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
                let (soft, hard): (i64, i64) = (soft.parse().ok()?, hard.parse().ok()?);
                list.push(json!({ "Name": name, "Soft": soft, "Hard": hard }));
                Value::Array(list)
            }
            Form::Port => {
                let (port, host) = port(value)?;
                let mut exposed = object(&mut self.top, "ExposedPorts")?;
                exposed.insert(port.clone(), json!({}));
                self.top.insert("ExposedPorts".into(), Value::Object(exposed));
                let mut all = object(&mut self.host, field)?;
                let mut bound = all.get(&port).and_then(Value::as_array).cloned().unwrap_or_default();
                bound.push(host);
                all.insert(port, Value::Array(bound));
                Value::Object(all)
            }
            Form::Nested(inner) => {
                let mut all = object(self.fields(in_host), field)?;
                let mut inside = object(&mut all, inner)?;
                let (key, value) = pair()?;
                inside.insert(key.to_owned(), json!(value));
                all.insert(inner.to_owned(), Value::Object(inside));
                Value::Object(all)
            }
            Form::Inside(inner) => {
                let mut all = object(self.fields(in_host), field)?;
                all.insert(inner.to_owned(), json!(value));
                Value::Object(all)
            }
        };
        self.fields(in_host).insert(field.to_owned(), made);
        Some(())
    }
}

/// Bytes, as `docker run` takes them: a number and b, k, m or g; -1 is without limit.
fn size(text: &str) -> Option<i64> {
    if text == "-1" {
        return Some(-1);
    }
    let lower = text.to_ascii_lowercase();
    let lower = lower.strip_suffix("ib").or_else(|| lower.strip_suffix('b')).unwrap_or(&lower);
    let (number, unit) = match lower.find(|c: char| !c.is_ascii_digit()) {
        Some(at) => lower.split_at(at),
        None => (lower, ""),
    };
    let shift = match unit {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return None,
    };
    number.parse::<i64>().ok()?.checked_mul(1 << shift)
}

fn port(text: &str) -> Option<(String, Value)> {
    let (addresses, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    ["tcp", "udp", "sctp"].contains(&protocol).then_some(())?;
    let (rest, inside) = match addresses.rsplit_once(':') {
        Some((rest, inside)) => (Some(rest), inside),
        None => (None, addresses),
    };
    let inside: u16 = inside.parse().ok()?;
    let (address, outside) = match rest {
        None => ("", ""),
        Some(rest) => rest.rsplit_once(':').unwrap_or(("", rest)),
    };
    (outside.is_empty() || outside.parse::<u16>().is_ok()).then_some(())?;
    let address = address.trim_start_matches('[').trim_end_matches(']');
    Some((format!("{inside}/{protocol}"), json!({ "HostIp": address, "HostPort": outside })))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(words: &str, expected: Value) {
        let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
        let got = match parse(&words) {
            Ok(Arguments { top, host }) => json!({ "top": top, "host": host }),
            Err(error) => json!(error),
        };
        assert_eq!(got, expected, "{words:?}");
    }

    #[test]
    fn options_become_fields() {
        let host = |fields: Value| json!({ "top": {}, "host": fields });
        check("", host(json!({})));
        check("--cap-drop ALL --cap-add=NET_ADMIN", host(json!({ "CapDrop": ["ALL"], "CapAdd": ["NET_ADMIN"] })));
        check("-m 512m --cpus 1.5", host(json!({ "Memory": 536_870_912, "NanoCpus": 1_500_000_000 })));
        check("--cpus .5 --shm-size 1gib", host(json!({ "NanoCpus": 500_000_000, "ShmSize": 1_073_741_824 })));
        check("--sysctl a=1 --sysctl b=2=3", host(json!({ "Sysctls": { "a": "1", "b": "2=3" } })));
        check("--ulimit nofile=10:20", host(json!({ "Ulimits": [{ "Name": "nofile", "Soft": 10, "Hard": 20 }] })));
        check("--tmpfs /tmp:size=1m", host(json!({ "Tmpfs": { "/tmp": "size=1m" } })));
        check(
            "--log-driver json-file --log-opt max-size=1m --log-opt max-file=2",
            host(json!({ "LogConfig": { "Type": "json-file", "Config": { "max-size": "1m", "max-file": "2" } } })),
        );
        check("-it", json!({ "top": { "OpenStdin": true, "Tty": true }, "host": {} }));
        check("--tty=false", json!({ "top": { "Tty": false }, "host": {} }));
        let bound = |address: &str, port: &str| {
            json!({
                "top": { "ExposedPorts": { "80/tcp": {} } },
                "host": { "PortBindings": { "80/tcp": [{ "HostIp": address, "HostPort": port }] } },
            })
        };
        check("-p 80", bound("", ""));
        check("-p 8080:80", bound("", "8080"));
        check("-p 127.0.0.1:8080:80/tcp", bound("127.0.0.1", "8080"));
        check("-p [::1]:8080:80", bound("::1", "8080"));
    }

    #[test]
    fn what_is_not_taken_is_named() {
        check("--memory", json!("run_args: --memory has no value"));
        check("--memory lots", json!("run_args: `lots` is no value for --memory"));
        check("-p 8080:http", json!("run_args: `8080:http` is no value for --publish"));
        check("--init=maybe", json!("run_args: `--init=maybe` is neither true nor false"));
        for word in ["--gpus", "-ix", "image", "--name"] {
            let error = parse(&[word.to_owned()]).unwrap_err();
            assert!(error.starts_with(&format!("run_args: `{word}` is not taken; these are: --add-host ")), "{error}");
        }
    }
}
