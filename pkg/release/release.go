// Package release says which release this is.
package release

// Version is set when a release is built; it is "dev" otherwise.
var Version = "dev"
