// Package record is the recording of one session: events in frames, frames sealed in
// chunks that are chained by hash, and a seal that the node signed. It writes, verifies,
// opens and shows recordings, and leaves their keeping to the spool and the control
// plane. The chain is over what is stored, so that it is verified without a key; what
// was recorded is read only with the session's data key, which only the holder of the
// recording key can open. README.md is the format, byte by byte, for those who write a
// reader of their own.
package record
