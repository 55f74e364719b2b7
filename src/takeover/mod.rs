//! Several processes of one proxy, of which a newer one takes over from those that were there before.
//!
//! They meet in a directory (`server.takeover_dir`), in which each has a socket, its [`Door`], for as long as it lives. A new process
//! opens its own and knocks at all others ([`Elders`]). It asks for their listening sockets, gets itself ready, and says so; they
//! then stop accepting, answer nothing from memory any more, and say that. Only then does the new one accept. An elder keeps the
//! connection until it ends, so that its end is the end of what it may do.
//!
//! **Invariant.** Before a process accepts its first client, every other one has said that it serves nothing from memory and never will
//! again; and a process serves nothing from memory while there is an elder. So at most one does at any time, and only while no other
//! can pass a write. However a process ends, the kernel closes its connections: nobody waits for one that is gone.
//!
//! The listening sockets themselves are passed on, not opened a second time: a connection that waits to be accepted waits in the
//! socket, and is accepted by whoever has it then. (Of two sockets with `SO_REUSEPORT` one that is closed takes those that wait in it
//! along, and resets them.)

mod door;
mod elders;
mod message;

pub use door::{Asked, Door, Successor};
pub use elders::{Elders, Knocked, TakeoverError};
pub use message::{Passed, Role};
