//! Stories, a file a theme.

mod bad_config;
mod cancel;
mod checkout;
mod graph;
mod images;
mod inspect;
mod output;
mod people;
mod secrets;
mod services;
mod steps;
mod walls;
