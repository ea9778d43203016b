//! Which containers are open, for loops that must not recurse.

/// The kinds of the open containers, a bit each (1 = object): no allocation up to 128 deep.
#[derive(Default)]
pub(super) struct Nesting {
    bits: u128,
    len: u32,
    full: Vec<u128>,
}

impl Nesting {
    pub(super) fn push(&mut self, is_object: bool) {
        if self.len == u128::BITS {
            self.full.push(self.bits);
            self.len = 0;
        }
        self.bits = self.bits << 1 | u128::from(is_object);
        self.len += 1;
    }

    pub(super) fn last(&self) -> Option<bool> {
        (self.len > 0).then_some(self.bits & 1 == 1)
    }

    pub(super) fn pop(&mut self) {
        self.bits >>= 1;
        self.len = self.len.saturating_sub(1);
        if self.len == 0
            && let Some(bits) = self.full.pop()
        {
            self.bits = bits;
            self.len = u128::BITS;
        }
    }
}
