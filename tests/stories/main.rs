//! Stories, a file a theme.

mod attacks;
mod bad_config;
mod cancel;
mod checkout;
mod config;
mod graph;
mod hold;
mod host;
mod images;
mod inspect;
mod kill;
mod logs;
mod odd_environments;
mod orbs;
mod output;
mod people;
mod results;
mod secrets;
mod services;
mod setup;
mod steps;
mod walls;
