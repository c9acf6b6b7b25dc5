//! One test binary; the files beside this one are its modules.

mod architecture;
mod captures;
mod lists;
mod live_receivers;
mod look_ups;
mod places;
mod support;
