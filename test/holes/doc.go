// Package holes shows that the tests of enforcement can fail. Faults are planted in all of
// it (pkg/hole, behind a build tag); one after the other is opened, and the entry of the
// catalogue of evasions or the test of a package that it names must find it: `make holes`.
package holes
