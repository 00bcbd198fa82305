//! Owns the manual page: one for the program and all of its commands.

use std::io::{self, Write};

use clap::{ArgAction, Command, CommandFactory as _};
use clap_mangen::Man;

use crate::cli::Cli;

/// Writes the page: the program, then a section for each command with its usage and options.
pub(crate) fn write(out: &mut dyn Write) -> io::Result<()> {
    let mut program = Cli::command().disable_help_subcommand(true);
    program.build();
    let page = Man::new(program.clone());
    page.render_title(out)?;
    page.render_name_section(out)?;
    page.render_synopsis_section(out)?;
    page.render_description_section(out)?;
    page.render_options_section(out)?;
    examples(&program, ".SH EXAMPLES", out)?;
    for command in program.get_subcommands() {
        section(command, "registry", out)?;
    }
    Ok(())
}

fn section(command: &Command, above: &str, out: &mut dyn Write) -> io::Result<()> {
    let name = format!("{above} {}", command.get_name());
    writeln!(out, ".SH \"{}\"", escaped(&name.to_uppercase()))?;
    // Help is the same everywhere, and what holds for all commands of a kind is said with the kind.
    let below = above != "registry";
    let hidden = |action: &ArgAction| matches!(action, ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong);
    let shown = command.clone().mut_args(|arg| {
        let hide = hidden(arg.get_action()) || (below && arg.is_global_set());
        arg.hide(hide)
    });
    let page = Man::new(shown.clone().display_name(&name));
    let mut parts = Vec::new();
    page.render_description_section(&mut parts)?;
    page.render_synopsis_section(&mut parts)?;
    if shown.get_arguments().any(|arg| !arg.is_hide_set()) {
        page.render_options_section(&mut parts)?;
    }
    for line in String::from_utf8_lossy(&parts).lines() {
        match line.strip_prefix(".SH ") {
            Some("DESCRIPTION") => {}
            // Headings of a page of its own, a level down.
            Some(heading) => writeln!(out, ".SS {heading}")?,
            None => writeln!(out, "{line}")?,
        }
    }
    examples(command, ".SS EXAMPLES", out)?;
    for command in command.get_subcommands() {
        section(command, &name, out)?;
    }
    Ok(())
}

/// What the help says after the options, line by line as it is written.
fn examples(command: &Command, heading: &str, out: &mut dyn Write) -> io::Result<()> {
    let Some(text) = command.get_after_help() else { return Ok(()) };
    let text = text.to_string();
    writeln!(out, "{heading}\n.nf")?;
    for line in text.lines().filter(|line| !["Example:", "Examples:"].contains(line)) {
        // A line that begins with a point or a quote would be an instruction.
        writeln!(out, "\\&{}", escaped(line))?;
    }
    writeln!(out, ".fi")
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq")
}
