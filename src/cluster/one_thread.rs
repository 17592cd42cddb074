//! libtorch's threads out of the way of rayon's.

/// While this lives, libtorch works in one thread. After an operation in several, OpenMP's threads wait
/// for the next one in a busy loop of some milliseconds, on the very cores that rayon's threads need
/// next: where small operations of libtorch alternate with work in rayon, that costs half of the time.
#[derive(Debug)]
pub(super) struct OneThread(i32);

impl OneThread {
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        let before = tch::get_num_threads();
        tch::set_num_threads(1);
        Self(before)
    }
}

impl Drop for OneThread {
    fn drop(&mut self) {
        tch::set_num_threads(self.0);
    }
}
