//! The PostgreSQL server behind the proxy: how connections to it are opened, logged in, limited and kept, and how what runs on
//! them is cancelled.

pub mod alias;
pub mod backend;
pub mod connect;
pub mod health;
pub mod login;
pub mod lookout;
pub mod open;
pub mod parsed;
pub mod peer;
pub mod pool;
pub mod role;
pub mod settings;
