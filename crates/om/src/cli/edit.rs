//! Owns editing in the user's editor: a value or a configuration is opened, and what comes back is sent if it changed.
//! Does not own the file, which is `scratch`'s, nor what is valid, which is the daemon's.

use std::{env, fs, os::unix::fs::OpenOptionsExt as _, path::PathBuf};

use om_core::path::{Kind, ObjectPath};
use tokio::{
    process,
    signal::unix::{SignalKind, signal},
};

use super::{Context, Failed, Outcome, ask, parse::Command, put, scratch::Scratch, tell};
use crate::{
    api::{self, WriteMode},
    client::ClientError,
};

/// `edit --key K`.
pub async fn key(context: &Context, command: &Command) -> Outcome {
    let path = context.one(command)?;
    if !path.kind.is_key_store() {
        return Err(Failed::new(format!("{path} has no keys")).hint("only sec and cfg objects have"));
    }
    let key = command.value("key").unwrap_or_default();
    if key.is_empty() {
        return Err(Failed::new("--key needs a name"));
    }
    let version = |keys: &[api::KeyInfo]| keys.iter().find(|known| known.name == key).map(|known| known.version);
    // Fails if the object is not there; a key that is not is made.
    let before = version(&context.client.keys(&path, None).await?);
    let old = match before {
        Some(_) => context.client.value(&path, key).await?,
        None => Vec::new(),
    };
    if std::str::from_utf8(&old).is_err() {
        return Err(Failed::new(format!("{path} key {key} is no text")).hint("use `decode` and `change --from FILE`"));
    }
    let scratch = Scratch::new(key, &old)?;
    open(&scratch).await?;
    let new = tidy(&old, scratch.read()?);
    if new.is_empty() || new == old {
        return put(&format!("  {} key '{key}' unchanged\n", word(path.kind)));
    }
    if std::str::from_utf8(&new).is_err() {
        return Err(Failed::new("what was saved is no text; nothing is changed"));
    }
    if !command.has("force") && version(&context.client.keys(&path, None).await?) != before {
        return Err(Failed::new(format!("{path} key {key} was changed meanwhile; nothing is changed"))
            .hint("edit it again, or overwrite it with --force"));
    }
    let size = new.len();
    context.client.value_put(&path, key, WriteMode::Change, new).await?;
    let done = if before.is_some() { "changed" } else { "added" };
    put(&format!("  {} key '{key}' {done} ({size})\n", word(path.kind)))
}

/// What a key store is called in messages.
pub fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Sec => "secret",
        Kind::Usr => "user",
        _ => "config",
    }
}

/// A newline that the editor adds to a value of one line is taken off, unless the value had one.
fn tidy(old: &[u8], mut new: Vec<u8>) -> Vec<u8> {
    let one_line = new.iter().filter(|byte| **byte == b'\n').count() == 1 && new.ends_with(b"\n");
    if one_line && !old.ends_with(b"\n") {
        new.pop();
    }
    if new.iter().all(u8::is_ascii_whitespace) { Vec::new() } else { new }
}

/// What a configuration belongs to.
enum Target {
    Object(ObjectPath),
    Node,
}

/// `edit`, `edit config`: of an object, the cluster or the node.
pub async fn config(context: &Context, command: &Command) -> Outcome {
    let target = match command.verb.area {
        super::grammar::Area::Node => Target::Node,
        _ => Target::Object(context.one(command)?),
    };
    let name = match &target {
        Target::Object(path) => path.to_string(),
        Target::Node => "the node".into(),
    };
    let kept = kept(context, &target);
    if command.has("discard") {
        return match fs::remove_file(&kept) {
            Ok(()) => put(&format!("  {name}: the refused text is dropped\n")),
            Err(_) => put(&format!("  {name}: there is no refused text\n")),
        };
    }
    let stored = match &target {
        Target::Object(path) => context.client.config(path).await?,
        Target::Node => context.client.node_config().await?,
    };
    let mut text = match (command.has("recover"), fs::read_to_string(&kept)) {
        (true, Ok(text)) => text,
        (true, Err(_)) => return Err(Failed::new(format!("{name}: there is no refused text"))),
        (false, Ok(_)) => {
            return Err(Failed::new(format!("{name}: a text that was refused is kept"))
                .hint("go on with it: `edit --recover`, or drop it: `edit --discard`"));
        }
        (false, Err(_)) => stored.text.clone(),
    };
    loop {
        let scratch = Scratch::new(&format!("{}.conf", name.replace('/', ".")), text.as_bytes())?;
        open(&scratch).await?;
        let new = String::from_utf8(scratch.read()?)
            .map_err(|_| Failed::new("what was saved is no text; nothing is changed"))?;
        if new.trim().is_empty() || new == stored.text {
            // What was refused before is the same as what is stored now: nothing is left to recover.
            if command.has("recover") {
                let _ = fs::remove_file(&kept);
            }
            return put(&format!("  {name}: configuration unchanged\n"));
        }
        let replace =
            api::Replace { text: new.clone(), generation: Some(stored.generation), file: name.clone(), dry_run: false };
        let answer = match &target {
            Target::Object(path) => context.client.config_replace(path, &replace).await,
            Target::Node => context.client.node_config_replace(&replace).await,
        };
        let error = match answer {
            Ok(changed) => {
                let _ = fs::remove_file(&kept);
                super::config::warn(&changed.diagnostics);
                return put(&format!("  {name}: configuration changed\n"));
            }
            Err(error) => error,
        };
        keep(&kept, &new)?;
        let invalid = matches!(&error, ClientError::Refused { failure, .. } if failure.code == api::code::INVALID);
        let failed = Failed::from(error);
        if invalid {
            tell(&failed.text(super::coloured_errors()));
            if ask("edit again?", true) {
                text = new;
                continue;
            }
            return Err(Failed::new(format!("{name}: nothing is changed"))
                .hint("your text is kept: `edit --recover` goes on with it, `edit --discard` drops it"));
        }
        tell("  your text is kept: `edit --recover` goes on with it, `edit --discard` drops it\n");
        return Err(failed);
    }
}

/// Where a refused text is kept. Configurations have no secrets in them.
fn kept(context: &Context, target: &Target) -> PathBuf {
    let name = match target {
        Target::Object(path) => path.fqn().replace('/', "."),
        Target::Node => "node".into(),
    };
    context.places.var.join("edit").join(format!("{name}.conf"))
}

fn keep(path: &PathBuf, text: &str) -> Result<(), Failed> {
    let write = || {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        std::io::Write::write_all(&mut file, text.as_bytes())
    };
    write().map_err(|error| Failed::io("keep the text in", path, &error))
}

/// Runs the editor until it ends. Ctrl-C is the editor's; a hang-up ends both, and the file is wiped.
async fn open(scratch: &Scratch) -> Result<(), Failed> {
    let editor =
        ["EDITOR", "VISUAL"].into_iter().find_map(|name| env::var(name).ok().filter(|value| !value.trim().is_empty()));
    let Some(editor) =
        editor.or_else(|| ["editor", "vi", "nano"].into_iter().find(|name| found(name).is_some()).map(str::to_owned))
    else {
        return Err(Failed::new("there is no editor").hint("install one, or name it: EDITOR=nano om …"));
    };
    let handler = |kind| signal(kind).map_err(|error| Failed::new(format!("handle signals: {error}")));
    let (mut interrupt, mut quit) = (handler(SignalKind::interrupt())?, handler(SignalKind::quit())?);
    let (mut hangup, mut terminate) = (handler(SignalKind::hangup())?, handler(SignalKind::terminate())?);
    // A shell splits the words of EDITOR, as for every other program that has one.
    let mut command = process::Command::new("/bin/sh");
    command.arg("-c").arg(format!("exec {editor} {}\"$@\"", quiet(&editor))).arg(&editor).arg(scratch.path());
    // What editors keep beside the file stays in memory too.
    command.env("TMPDIR", scratch.directory()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| Failed::new(format!("start the editor `{editor}`: {error}")))?;
    loop {
        tokio::select! {
            ended = child.wait() => {
                let status = ended.map_err(|error| Failed::new(format!("wait for the editor: {error}")))?;
                return if status.success() {
                    Ok(())
                } else {
                    Err(Failed::new(format!("the editor `{editor}` failed ({status}); nothing is changed")))
                };
            }
            _ = interrupt.recv() => {}
            _ = quit.recv() => {}
            _ = hangup.recv() => break,
            _ = terminate.recv() => break,
        }
    }
    // It may be gone already.
    let _ = child.kill().await;
    Err(Failed::new("interrupted; nothing is changed"))
}

/// Options that keep vim from writing what was edited into its own files of the home directory.
fn quiet(editor: &str) -> &'static str {
    let program = editor.split_whitespace().next().unwrap_or_default();
    let target = found(program).and_then(|path| path.canonicalize().ok());
    let name = target.as_ref().and_then(|path| path.file_name()).map(|name| name.to_string_lossy().into_owned());
    match name {
        Some(name) if name.starts_with("vim") || name.starts_with("nvim") => "-n -i NONE ",
        _ => "",
    }
}

fn found(program: &str) -> Option<PathBuf> {
    if program.contains('/') {
        return Some(program.into());
    }
    env::split_paths(&env::var_os("PATH")?).map(|directory| directory.join(program)).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_editor_s_newline_is_taken_off() {
        let check = |old: &str, new: &str, expected: &str| {
            assert_eq!(String::from_utf8(tidy(old.as_bytes(), new.into())).unwrap(), expected);
        };
        check("", "token\n", "token");
        check("old\n", "new\n", "new\n");
        check("old", "new\n", "new");
        check("", "{\n}\n", "{\n}\n");
        check("old", "\n", "");
        check("old", "", "");
    }
}
