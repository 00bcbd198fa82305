//! Owns where secrets come from: a terminal without echo, standard input, a file; never an argument.
//!
//! Does not judge passwords: who keeps them does.

use std::{
    fs::File,
    io::{self, IsTerminal as _, Read, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};

use crate::admin::order::Given;

/// Most bytes of a password that are read.
const MOST: usize = 4096;

/// Where the new password of a user comes from.
#[derive(Debug, Args)]
pub(crate) struct NewPassword {
    /// Read it from the first line of a file, `-` for standard input; else it is asked for
    #[arg(long, value_name = "FILE", conflicts_with = "generate")]
    password_file: Option<PathBuf>,
    /// Let the registry make one, which is printed once
    #[arg(long)]
    generate: bool,
}

impl NewPassword {
    /// The password; `None` if the registry is to make one.
    pub(crate) fn read(self, user: &str) -> Result<Option<Given>> {
        let password = match &self.password_file {
            _ if self.generate => return Ok(None),
            Some(path) => from_file(path)?,
            None if io::stdin().is_terminal() => {
                let mut terminal = Terminal::open()?;
                let password = terminal.secret(&format!("New password of {user}: "))?;
                let again = terminal.secret("The same again: ")?;
                ensure!(password == again, "the two passwords are not the same; nothing was changed");
                password
            }
            None => {
                let password = first_line(&mut io::stdin().lock()).context("read the password from standard input")?;
                ensure!(
                    !password.is_empty(),
                    "no password came from standard input (hint: --generate makes one, --password-file reads a file)"
                );
                password
            }
        };
        ensure!(!password.is_empty(), "the password is empty (hint: --generate makes a good one)");
        Ok(Some(Given(password)))
    }
}

/// The first line of a file; `-` is standard input.
pub(crate) fn from_file(path: &Path) -> Result<String> {
    if path == Path::new("-") {
        return first_line(&mut io::stdin().lock()).context("read the password from standard input");
    }
    let shown = path.display();
    let mut file = File::open(path).with_context(|| format!("open password file {shown}"))?;
    let password = first_line(&mut file).with_context(|| format!("read password file {shown}"))?;
    ensure!(!password.is_empty(), "password file {shown} begins with an empty line");
    Ok(password)
}

/// The first line, without its end. Nothing after it is read from a terminal or pipe.
fn first_line(from: &mut dyn Read) -> Result<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    // One byte at a time: what follows the line is for whoever reads next.
    while from.read(&mut byte)? == 1 && byte != *b"\n" {
        ensure!(line.len() < MOST, "the first line has more than {MOST} bytes");
        line.push(byte[0]);
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    String::from_utf8(line).ok().context("the first line is not UTF-8")
}

/// The person in front of the program, whatever standard input and output are.
pub(crate) struct Terminal(File);

impl Terminal {
    /// Opens the controlling terminal.
    pub(crate) fn open() -> Result<Self> {
        let file = File::options().read(true).write(true).open("/dev/tty");
        Ok(Self(file.context("open the terminal to ask for what is missing")?))
    }

    /// Asks for a secret, which is not shown.
    pub(crate) fn secret(&mut self, prompt: &str) -> Result<String> {
        self.0.write_all(prompt.as_bytes())?;
        let before = tcgetattr(&self.0).context("ask the terminal not to echo")?;
        let mut quiet = before.clone();
        // Without signals an interrupted prompt could leave a terminal behind that does not echo:
        // ^C is a character, read below.
        quiet.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
        quiet.special_codes[SpecialCodeIndex::VMIN] = 1;
        quiet.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(&self.0, OptionalActions::Drain, &quiet).context("ask the terminal not to echo")?;
        let echo = Echo(&self.0, before);
        let line = edit(&mut &self.0);
        drop(echo);
        self.0.write_all(b"\n")?;
        line
    }

    /// Asks whether to go on; only a clear yes is one.
    pub(crate) fn confirm(&mut self, question: &str) -> Result<bool> {
        self.0.write_all(question.as_bytes())?;
        let answer = first_line(&mut self.0)?;
        Ok(["y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
    }
}

/// Lets the terminal echo again.
struct Echo<'a>(&'a File, Termios);

impl Drop for Echo<'_> {
    fn drop(&mut self) {
        // There is nobody to tell.
        let _ = tcsetattr(self.0, OptionalActions::Drain, &self.1);
    }
}

/// Reads a line as a terminal would let it be edited.
fn edit(from: &mut dyn Read) -> Result<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    loop {
        if from.read(&mut byte)? == 0 {
            break;
        }
        match byte[0] {
            b'\n' | b'\r' => break,
            // ^C and ^\.
            3 | 28 => bail!("cancelled; nothing was changed"),
            // ^D.
            4 if line.is_empty() => bail!("cancelled; nothing was changed"),
            4 => break,
            // ^U.
            21 => line.clear(),
            // Backspace takes a whole character away.
            8 | 127 => while line.pop().is_some_and(|byte: u8| byte & 0xc0 == 0x80) {},
            control if control.is_ascii_control() => {}
            byte => {
                ensure!(line.len() < MOST, "that is more than {MOST} bytes");
                line.push(byte);
            }
        }
    }
    String::from_utf8(line).ok().context("what was typed is not UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let check = |text: &str, want: &str, rest: &str| {
            let mut from = text.as_bytes();
            assert_eq!(first_line(&mut from).unwrap(), want, "{text:?}");
            assert_eq!(from, rest.as_bytes(), "{text:?}");
        };
        check("secret", "secret", "");
        check("secret\n", "secret", "");
        check("secret\r\nmore\n", "secret", "more\n");
        check(" with spaces \n", " with spaces ", "");
        check("", "", "");
        assert!(first_line(&mut &[0xff, b'\n'][..]).is_err());
        assert!(first_line(&mut "x".repeat(MOST + 1).as_bytes()).is_err());
    }

    #[test]
    fn typing() {
        let check = |typed: &str, want: Option<&str>| {
            assert_eq!(edit(&mut typed.as_bytes()).ok().as_deref(), want, "{typed:?}");
        };
        check("secret\n", Some("secret"));
        check("wrong\x15right\r", Some("right"));
        check("säx\x7f\x7fe\n", Some("se"));
        check("\x7fa\n", Some("a"));
        check("a\x04", Some("a"));
        check("\x04", None);
        check("secret\x03", None);
    }
}
