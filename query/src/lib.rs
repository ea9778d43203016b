//! floodmark query
