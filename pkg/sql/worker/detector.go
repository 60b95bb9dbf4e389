//go:build race

package worker

// detector is how many bytes the race detector keeps in a child for itself, which count as
// the child's: 400 MiB from the start, and more as it grows.
const detector = 1 << 30
