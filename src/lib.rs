//! HeliosProxy: a PostgreSQL wire-protocol proxy with an exact result cache.
//!
//! The modules are floors. One may use those below it, never those above:
//!
//! ```text
//! server      listeners, accept loop, HTTP, graceful shutdown, reload
//! monitoring  telemetry, for programs that use this crate as a library
//! admin       the admin database: SHOW, FLUSH CACHE, SET and the like
//! stream      results over WebSockets, and a client of that
//! session     one client's life: start-up, authentication, the query cycle, state tracking
//! parallel    large scans over several connections in one snapshot: chunks, workers, order
//! cache       key, entry, store and eviction, versions (validity), single flight
//! catalog     what the upstream told us: relations, functions, dangerous names; refreshed on DDL
//! statement   what a SQL text is: class, names, normal form; memoised
//! upstream    connections, pools, authentication to the upstream, cancel
//! guard       retry with backoff, circuit breaker
//! wire        frames, message codecs, streams, error responses
//! takeover    other processes of the same proxy: sockets are passed on, clients go on
//! telemetry   metric names and handles, logs, health
//! config      the typed config, its file, its defaults, its validation
//! ```

pub mod admin;
pub mod cache;
pub mod catalog;
pub mod config;
pub mod guard;
pub mod monitoring;
pub mod parallel;
pub mod server;
pub mod session;
pub mod statement;
pub mod stream;
pub mod takeover;
pub mod telemetry;
pub mod upstream;
pub mod wire;
