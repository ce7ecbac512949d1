//! The allocator of every process that links this crate: it overwrites with zeros what is freed,
//! and what is left behind when a buffer grows.
//!
//! Secrets have types of their own that wipe them ([`crate::secret`]). Between these and the
//! network lie buffers that nobody here can reach: those of serde, of the Lambda runtime, of the
//! SDK, of HTTP and of TLS. All of them come from the allocator, so they are wiped here. What is
//! not freed is not wiped: a connection that is kept alive keeps its read buffers.

use std::alloc::System;

use zeroizing_alloc::ZeroAlloc;

#[global_allocator]
static WIPING: ZeroAlloc<System> = ZeroAlloc(System);
