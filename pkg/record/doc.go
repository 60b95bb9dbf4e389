// Package record is the recording of one session: events in frames, frames in chunks
// that are chained by hash, and a seal that the node signed. It writes, reads, verifies
// and shows recordings, and leaves their keeping to the spool and the control plane.
//
// # The format
//
// Integers of fixed width are little-endian. "Message" means the wire format of
// protocol buffers, by the field numbers given; a field with its zero value is left
// out, unknown fields are skipped. Times and durations are microseconds; times count
// from the Unix epoch.
//
// A frame is a part of an event:
//
//	uint32 length of the body in bits 0-30; bit 31 is set where the event goes on in the next frame
//	uint32 CRC-32C (Castagnoli) over the four bytes of the length and the body
//	body   1 to [MaxFrameBody] bytes
//
// The bodies of an event's frames, put together, are a message of at most [MaxEvent]
// bytes. Nothing is trimmed: a long statement is an event of many frames, which may
// stand in several chunks.
//
//	Event:   1 seq (from 1, without gaps; first in the message)  2 time  3 kind  4 Session
//	         5 statement  6 text  7 Param*  8 SHA-256 of the text  9 verdict  10 rule  11 reason
//	         12 forwarded text where it is not the client's  13 Touch*  14 effect  15 level  16 Version
//	         17 rows  18 bytes  19 affected (zigzag)  20 tag  21 code  22 message  23 duration
//	         24 hold  25 people*  26 encoding of the data  27 Column*  28 data  29 direction
//	Session: 1 id  2 subject  3 groups*  4 workload  5 grant  6 task  7 resource  8 protocol  9 node
//	         10 region  11 client address  12 client program  13 Version  14 level  15 account  16 database
//	Param:   1 value  2 null  3 binary
//	Touch:   1 column  2 role  3 mask
//	Column:  1 name  2 type  3 binary  4 masked
//	Version: 1 epoch  2 revision
//
// A chunk is
//
//	8 bytes  "PSTRNREC"
//	uint8    1, the version of the format
//	uint8    0 for frames, 1 for a seal
//	uint8 n, then n bytes: the codec of the body: "none", or "s2" (one S2 block, a superset of Snappy)
//	uint8 n, then n bytes: the session's id, 1 to 128 of A-Z a-z 0-9 - _
//	uint32   index of the chunk, from 0
//	uint64   seq of the event of the first frame
//	uint64   seq of the event of the last frame
//	uint32   bytes of the body once decoded
//	uint32   bytes of the body as it stands here
//	32 bytes hash of the chunk before; zeros in chunk 0
//	the body
//	32 bytes hash of this chunk: SHA-256 over everything above
//
// The last chunk is the seal. Its body is a message, never compressed:
//
//	Seal: 1 session  2 node  3 chunks before the seal  4 hash of the chunk before
//	      5 seq of the last event  6 time  7 truncated  8 reason  15 signature
//
// The signature is the last field. It is made with the node's key over the bytes
// "postern/seal/v1", a zero byte, and all of the message that comes before it: Ed25519
// over those bytes themselves, or ECDSA (ASN.1) over their SHA-256. A recording without
// a seal is open; one whose seal says truncated belongs to a node that was stopped, and
// may lack its end: an event that began in its last frames may be incomplete.
package record
