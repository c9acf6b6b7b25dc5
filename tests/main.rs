//! One test binary; the files beside this one are its modules.

mod architecture;
mod lists;
mod places;
mod support;
