//! Has the linker leave room for five million functions before the first: the table is as large from the start.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-cdylib-link-arg=--table-base=5000000");
}
