//! The global allocator, which wipes memory: it overwrites freed memory with zeros, and the old
//! memory when a buffer grows.
//!
//! Secrets have types that wipe them ([`crate::secret`]). Between these types and the network are
//! buffers that this crate cannot reach: those of serde, the Lambda runtime, the SDK, HTTP and TLS.
//! All of them come from this allocator, so they are wiped too. Memory that is not freed is not
//! wiped: a connection that is kept alive keeps its read buffers.

use std::alloc::System;

use zeroizing_alloc::ZeroAlloc;

#[global_allocator]
static WIPING: ZeroAlloc<System> = ZeroAlloc(System);
