//! Stories, a file a theme.

mod bad_config;
mod cancel;
mod checkout;
mod graph;
mod hold;
mod host;
mod images;
mod inspect;
mod kill;
mod logs;
mod output;
mod people;
mod services;
mod steps;
mod walls;
