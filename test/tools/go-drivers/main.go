// Command go-drivers does with lib/pq and with GORM what test/e2e/05-drivers compares
// between drivers: it tells what it saw as facts, one a line.
package main

import (
	"bufio"
	"fmt"
	"os"
)

func fact(name string, value any) { fmt.Printf("%s\t%v\n", name, value) }

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// changePolicy asks the test for a change of policy, and waits until it is in force.
func changePolicy() {
	fact("change-policy", "")
	_, err := bufio.NewReader(os.Stdin).ReadString('\n')
	check(err)
}

func main() {
	switch programs := map[string]func(){"pq": libpq, "gorm": orm}; {
	case len(os.Args) == 2 && programs[os.Args[1]] != nil:
		programs[os.Args[1]]()
	default:
		fmt.Fprintln(os.Stderr, "usage: go-drivers pq|gorm")
		os.Exit(2)
	}
}
