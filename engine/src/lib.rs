//! floodmark engine
