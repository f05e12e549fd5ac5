//! What every store must do, whatever home it has.

mod faults;
mod grantor;
mod proxy;
mod server;
mod suite;
mod sweeps;
mod tls;
