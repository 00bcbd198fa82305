//! Owns running iptables(8). Does not own which rules there are.

use std::{io, time::Duration};

use om_core::driver::DriverError;
use tokio::{process::Command, time::timeout};

/// The longest time for one call.
const LIMIT: Duration = Duration::from_secs(10);

/// Whether it did what it was told, and what it printed: of a failure, what it complained of. Where it is not installed
/// there are no rules, and it does nothing.
///
/// # Errors
/// It cannot be run, or takes too long.
pub(crate) async fn run(words: impl IntoIterator<Item = &str>) -> Result<(bool, String), DriverError> {
    let mut command = Command::new("iptables");
    // Others may be at the rules.
    command.args(["-w", "5"]).args(words).kill_on_drop(true);
    match timeout(LIMIT, command.output()).await {
        Err(_) => Err(DriverError::Timeout { what: "iptables".into(), limit: LIMIT }),
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => Ok((false, "iptables is not installed".into())),
        Ok(Err(error)) => Err(DriverError::failed(format!("run iptables: {error}"), None)),
        Ok(Ok(output)) => {
            let said = if output.status.success() { &output.stdout } else { &output.stderr };
            Ok((output.status.success(), String::from_utf8_lossy(said).trim().to_owned()))
        }
    }
}
