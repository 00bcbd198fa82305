//! Owns the rule that plugin `bridge` makes for masquerading, where the plugin does not take it back itself: it does not
//! when the interface is gone, as after the death of a container, and a rule that stays keeps its chain from going ever
//! after. Does not own any other rule.

use om_core::driver::DriverError;
use sha2::{Digest as _, Sha512};

use crate::iptables;

/// The length of a chain's name, as the plugins make it.
const CHAIN: usize = 28;

/// The chain of a container in a network, as the plugins name it (`utils.FormatChainName` of containernetworking/plugins).
fn chain(network: &str, container: &str) -> String {
    let sum = Sha512::digest(format!("{network}{container}"));
    let hex: String = sum.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("CNI-{hex}").chars().take(CHAIN).collect()
}

/// Takes a rule of iptables-save(8) apart, as a shell would.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted, mut begun) = (Vec::new(), String::new(), false, false);
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => word.extend(chars.next()),
            '"' => (quoted, begun) = (!quoted, true),
            ' ' if !quoted => {
                if begun {
                    words.push(std::mem::take(&mut word));
                }
                begun = false;
            }
            c => {
                word.push(c);
                begun = true;
            }
        }
    }
    if begun {
        words.push(word);
    }
    words
}

/// Removes the rules that lead to a container's chain, and empties it, before the plugin is told to give back. The chain
/// stays: `iptables` would not understand the plugin without it.
///
/// # Errors
/// If a rule that is there cannot be removed.
pub(super) async fn empty(network: &str, container: &str) -> Result<(), DriverError> {
    let chain = chain(network, container);
    let (done, text) = iptables(&["-S".into(), "POSTROUTING".into()]).await?;
    if !done {
        // Where there is no table there are no rules.
        return Ok(());
    }
    for line in text.lines() {
        let mut rule = words(line);
        let leads = rule.windows(2).any(|pair| pair[0] == "-j" && pair[1] == chain);
        if !leads || rule.first().is_none_or(|word| word != "-A") {
            continue;
        }
        rule[0] = "-D".into();
        let (done, said) = iptables(&rule).await?;
        if !done {
            let what = format!("remove the rule of {container} in network {network}: {said}");
            return Err(DriverError::failed(what, None));
        }
    }
    // It may be there already.
    iptables(&["-N".into(), chain.clone()]).await?;
    iptables(&["-F".into(), chain]).await?;
    Ok(())
}

/// Removes a container's chain after the plugin gave back, which may have left it.
///
/// # Errors
/// If `iptables` does not answer.
pub(super) async fn remove(network: &str, container: &str) -> Result<(), DriverError> {
    iptables(&["-X".into(), chain(network, container)]).await?;
    Ok(())
}

async fn iptables(words: &[String]) -> Result<(bool, String), DriverError> {
    iptables::run(["-t", "nat"].into_iter().chain(words.iter().map(String::as_str))).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_taken_apart_as_they_were_given() {
        let check = |line: &str, expected: &[&str]| assert_eq!(words(line), expected, "{line}");
        check("-A POSTROUTING -j X", &["-A", "POSTROUTING", "-j", "X"]);
        check(
            r#"-A POSTROUTING -s 10.22.0.2/32 -m comment --comment "name: \"default\" id: \"a b\"" -j CNI-1"#,
            &[
                "-A",
                "POSTROUTING",
                "-s",
                "10.22.0.2/32",
                "-m",
                "comment",
                "--comment",
                r#"name: "default" id: "a b""#,
                "-j",
                "CNI-1",
            ],
        );
        check(r#"a "" b"#, &["a", "", "b"]);
        check("  ", &[]);
    }

    #[test]
    fn a_chain_is_named_as_the_plugins_name_it() {
        assert_eq!(chain("default", "21739922-efef-4525-93f9-c2414e761377.ip.1"), "CNI-6e3f9641de342c1cea08b566");
    }
}
