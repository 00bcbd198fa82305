//! The account commands: `user`, `robot`, `group`, `grant` and `key`.
//!
//! An order is read from the command line, goes to the registry that it is for, and its answer is
//! shown. Does not own what an order does (`admin`).

use std::{
    io::{self, IsTerminal as _},
    process::ExitCode,
};

use anyhow::{Context as _, Result, ensure};

use self::{
    commands::{Orders, With},
    password::Terminal,
    place::Place,
};

pub(crate) mod commands;
pub(crate) mod messenger;
pub(crate) mod password;
mod place;
pub(crate) mod show;
mod value;

/// Carries a command out; the exit code says whether it went well, and of a question whether the
/// answer is yes.
pub(crate) fn run<C: Orders + clap::Subcommand>(With { to, command }: With<C>) -> Result<ExitCode> {
    // First of all: nobody should type a password for a registry that cannot be found.
    let place = Place::find(&to)?;
    if let Some(lost) = command.loses()
        && io::stdin().is_terminal()
    {
        ensure!(Terminal::open()?.confirm(&format!("Remove {lost}? [y/N] "))?, "nothing was removed");
    }
    let order = command.order()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
    let answer = runtime.block_on(place.carry_out(order.clone()))?;
    show::show(to.format, &order, &answer)
}
