//! The store as its callers see it: commits, restarts, crashes, faults and damage.

mod crash;
mod damage;
mod model;
mod session;
