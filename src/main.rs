//! The `egret` program; everything is in the library.

fn main() {}
