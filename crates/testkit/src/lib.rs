//! What tests need around a program under test: real tools, throw-away servers, hand-made images.
//!
//! Dev only. Everything lives in temporary directories, takes free ports and is ended by process
//! id when dropped. The kit reports trouble the way a test does: it panics and names the command,
//! the server or the file. It holds no assertion about the product itself.

mod acceptor;
pub mod certificate;
pub mod client;
pub mod command;
pub mod engine;
pub mod http;
pub mod image;
pub mod issuer;
pub mod powercut;
pub mod process;
pub mod random;
pub mod receiver;
pub mod server;
pub mod wire;
