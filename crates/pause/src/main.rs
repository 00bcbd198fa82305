//! The program of the image `google/pause`: it holds the namespaces that other containers of a service join, so that an
//! address outlives the program behind it. It waits for the end, and takes note of the deaths of processes that were left
//! to it, as process 1 of a namespace must. Does nothing else.

use std::io;

use rustix::process::{WaitOptions, wait};
use signal_hook::{
    consts::{SIGCHLD, SIGINT, SIGTERM},
    iterator::Signals,
};

fn main() -> io::Result<()> {
    for signal in Signals::new([SIGCHLD, SIGINT, SIGTERM])?.forever() {
        if signal != SIGCHLD {
            break;
        }
        // One signal may stand for several deaths.
        while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
    }
    Ok(())
}
