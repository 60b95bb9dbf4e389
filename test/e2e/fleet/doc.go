// Package fleet runs Postern the way an operator does: the real binaries as processes of
// an ordinary user, with YAML files, an etcd cluster, Vault, PostgreSQL and an identity
// provider with two audiences; nodes join with tokens of "postern nodes enrol", people
// sign in with "postern login", and the sample company is applied with "postern apply".
// Suites under test/e2e use it; what is missing is built or installed, never skipped.
package fleet
