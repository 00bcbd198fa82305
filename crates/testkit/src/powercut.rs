//! What may be on a disk after a power cut, computed from the system calls that a program made.
//!
//! [`trace`] reads what `strace` wrote, [`disk`] is a model of a file system that keeps only what
//! POSIX promises to keep, [`exchange`] finds in the same calls what the program was asked for and
//! what it answered. Owns no idea of registries: what has to be on the disk is the test's concern.

pub mod disk;
pub mod exchange;
pub mod trace;

/// The options of `strace` that make a trace which [`trace::parse`] reads. The program follows.
///
/// The tracer is not the program's parent (`-D`), so that signals reach the program itself.
pub const STRACE: &[&str] = &[
    "-D",
    "-f",
    "-y",
    "-xx",
    "-ttt",
    "-s",
    "67108864",
    "-e",
    "trace=open,openat,openat2,creat,write,pwrite64,writev,pwritev,pwritev2,ftruncate,truncate,fallocate,\
     fsync,fdatasync,sync,syncfs,rename,renameat,renameat2,link,linkat,symlink,symlinkat,unlink,unlinkat,\
     mkdir,mkdirat,rmdir,close,dup,dup2,dup3,lseek,copy_file_range,sendfile,splice,read,recvfrom,sendto,sendmsg",
    "-e",
    "signal=none",
];
