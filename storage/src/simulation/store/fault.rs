//! What can go wrong between a caller and a bucket, how often it shall, and how often it did.

/// One way in which a request goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A write fails and changes nothing.
    FailBefore,
    /// A write takes effect, and its caller is told that it failed.
    FailAfter,
    /// A request takes up to [`super::DELAY_MS_MAX`].
    Delay,
    /// A write is reported as failed and takes effect up to [`super::DELAY_MS_MAX`] later.
    LandLater,
    /// An unconditional put or a part stores a prefix of its bytes, and its caller is told that all is well.
    Truncate,
    /// A conditional write is refused with 409 or 412 although nothing stands there, some times in a row.
    Conflict,
    /// A listing omits what was written within the last [`super::STALE_MS_MAX`].
    StaleList,
    /// 500, 503, 429 or spent credentials: nothing changed.
    Refuse,
    /// A read fails.
    FailRead,
    /// A read's body or a listing ends in an error half way.
    CutRead,
}

impl Fault {
    /// Each of them.
    pub const ALL: [Self; 10] = [
        Self::FailBefore,
        Self::FailAfter,
        Self::Delay,
        Self::LandLater,
        Self::Truncate,
        Self::Conflict,
        Self::StaleList,
        Self::Refuse,
        Self::FailRead,
        Self::CutRead,
    ];
}

/// One kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    Put,
    StartMultipart,
    PutPart,
    CompleteMultipart,
    AbortMultipart,
    Get,
    Head,
    List,
    Delete,
    Copy,
}

impl Request {
    const COUNT: usize = 10;
}

/// How often each fault occurs, per mille of the requests that it can meet.
#[derive(Clone, Copy, Debug)]
pub struct Odds([u16; Fault::ALL.len()]);

impl Odds {
    /// No fault at all.
    pub fn none() -> Self {
        Self::all(0)
    }

    /// Each fault equally often.
    pub fn all(per_mille: u16) -> Self {
        Self([per_mille; Fault::ALL.len()])
    }

    /// The same with other odds for one fault.
    pub fn with(mut self, fault: Fault, per_mille: u16) -> Self {
        self.0[fault as usize] = per_mille;
        self
    }

    pub(super) fn of(&self, fault: Fault) -> u16 {
        self.0[fault as usize]
    }
}

/// What happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    faults: [u64; Fault::ALL.len()],
    requests: [u64; Request::COUNT],
}

impl Counts {
    /// How often a fault was injected.
    pub fn faults(&self, fault: Fault) -> u64 {
        self.faults[fault as usize]
    }

    /// How many requests of a kind were made, those that failed included.
    pub fn requests(&self, request: Request) -> u64 {
        self.requests[request as usize]
    }

    pub(super) fn injected(&mut self, fault: Fault) {
        self.faults[fault as usize] += 1;
    }

    pub(super) fn requested(&mut self, request: Request) {
        self.requests[request as usize] += 1;
    }
}
