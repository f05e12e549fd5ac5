//! Stories, a file a theme.

mod attacks;
mod bad_config;
mod cancel;
mod checkout;
mod graph;
mod images;
mod inspect;
mod odd_environments;
mod output;
mod people;
mod services;
mod steps;
mod walls;
