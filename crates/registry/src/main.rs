//! The program `registry`: everything is in the library, so that fuzzing and tests reach it too.

use std::process::ExitCode;

fn main() -> ExitCode {
    registry::main()
}
