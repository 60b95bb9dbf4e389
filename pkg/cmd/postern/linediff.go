package main

import "strings"

// lineDiff shows how a text changes, line by line: the longest common lines stay, the
// rest is taken out or put in. What both begin and end with is left out of the table, which
// has an entry for each pair of lines: an object may have many, of which few change.
func lineDiff(before, after string) string {
	a, b := lines(before), lines(after)
	var out strings.Builder
	for len(a) > 0 && len(b) > 0 && a[0] == b[0] {
		out.WriteString("  " + a[0] + "\n")
		a, b = a[1:], b[1:]
	}
	same := 0
	for same < min(len(a), len(b)) && a[len(a)-1-same] == b[len(b)-1-same] {
		same++
	}
	end := a[len(a)-same:]
	a, b = a[:len(a)-same], b[:len(b)-same]
	common := make([][]int, len(a)+1)
	for i := range common {
		common[i] = make([]int, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	for i, j := 0, 0; i < len(a) || j < len(b); {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			out.WriteString("  " + a[i] + "\n")
			i, j = i+1, j+1
		case j == len(b) || i < len(a) && common[i+1][j] >= common[i][j+1]:
			out.WriteString("- " + a[i] + "\n")
			i++
		default:
			out.WriteString("+ " + b[j] + "\n")
			j++
		}
	}
	for _, l := range end {
		out.WriteString("  " + l + "\n")
	}
	return out.String()
}

func lines(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(s, "\n"), "\n")
}
