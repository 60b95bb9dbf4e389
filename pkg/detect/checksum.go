package detect

import "strings"

// luhn reports whether the last digit is the check digit of the others.
func luhn(d []byte) bool {
	sum := 0
	for i := range d {
		n := int(d[len(d)-1-i] - '0')
		if i%2 == 1 {
			if n *= 2; n > 9 {
				n -= 9
			}
		}
		sum += n
	}
	return sum%10 == 0
}

// issuers are the beginnings of card numbers, with the lengths that each has as bits.
var issuers = [...]struct{ from, to, digits, lengths int }{
	{4, 4, 1, 1<<13 | 1<<16 | 1<<19}, {51, 55, 2, 1 << 16}, {2221, 2720, 4, 1 << 16}, // Visa, Mastercard
	{34, 34, 2, 1 << 15}, {37, 37, 2, 1 << 15}, // American Express
	{6011, 6011, 4, from16}, {644, 649, 3, from16}, {65, 65, 2, from16}, // Discover
	{3528, 3589, 4, from16}, {300, 305, 3, 1 << 14}, {36, 36, 2, 1 << 14}, {38, 39, 2, 1 << 14}, // JCB, Diners
	{62, 62, 2, from16}, {81, 81, 2, from16}, {2200, 2204, 4, from16}, {60, 60, 2, 1 << 16}, // UnionPay, Mir, RuPay
	{50, 50, 2, from16 | 1<<12}, {56, 58, 2, from16 | 1<<12}, {6304, 6304, 4, from16}, {6759, 6763, 4, from16}, // Maestro
}

const from16 = 1<<16 | 1<<17 | 1<<18 | 1<<19

func card(d []byte) bool {
	for _, is := range issuers {
		if is.lengths&(1<<len(d)) == 0 {
			continue
		}
		if n := value(d[:is.digits]); n >= is.from && n <= is.to {
			return luhn(d)
		}
	}
	return false
}

// value is the number that at most 18 digits say.
func value(d []byte) (n int) {
	for _, b := range d {
		n = n*10 + int(b-'0')
	}
	return n
}

// ibanLengths are the lengths of account numbers by country, as the registry has them.
const ibanLengths = "AD24AE23AL28AT20AZ28BA20BE16BG22BH22BI27BR29BY28CH21CR22CY28CZ24DE22DJ27DK18DO28EE20EG29ES24FI18FK18FO18FR27GB22GE22GI23" +
	"GL18GR27GT28HN28HR21HU28IE22IL23IQ23IS26IT27JO30KW30KZ20LB28LC32LI21LT20LU20LV21LY25MC27MD24ME22MK19MN20MR27MT31MU30NI28NL18" +
	"NO15OM23PK24PL28PS29PT25QA29RO24RS22RU33SA24SC31SD18SE24SI19SK24SM27SO23ST25SV28TL23TN24TR26UA29VA22VG24XK20YE30"

func ibanLength(a, b byte) int {
	for i := 0; i < len(ibanLengths); i += 4 {
		if ibanLengths[i] == a && ibanLengths[i+1] == b {
			return int(ibanLengths[i+2]-'0')*10 + int(ibanLengths[i+3]-'0')
		}
	}
	return 0
}

// mod97 is the check of ISO 7064 over an account number, in upper case.
func mod97(iban []byte) bool {
	rest := 0
	for i := range iban {
		b := iban[(i+4)%len(iban)]
		if isDigit(b) {
			rest = (rest*10 + int(b-'0')) % 97
		} else {
			rest = (rest*100 + int(b-'A') + 10) % 97
		}
	}
	return rest == 1
}

// callingCodes are the codes of countries of one and two digits, in spaces; all others
// that begin with 2 to 9 have three.
const callingCodes = " 1 7 20 27 30 31 32 33 34 36 39 40 41 43 44 45 46 47 48 49 51 52 53 54 55 56 57 58 60 61 62 63 64 65 66 81 82 84 86 90 91 92 93 94 95 98 "

// callingCode is how many digits of a number are its country's code; 0 where none is.
func callingCode(d []byte) int {
	if len(d) < 4 || d[0] == '0' {
		return 0
	}
	for n := 1; n < 3; n++ {
		if strings.Contains(callingCodes, " "+string(d[:n])+" ") {
			return n
		}
	}
	if d[0] == '2' || strings.IndexByte("3456789", d[0]) >= 0 && strings.Contains("35 37 38 42 50 59 67 68 69 80 85 87 88 96 97 99", string(d[:2])) {
		return 3
	}
	return 0
}

// usSocial is AAA-GG-SSSS, in groups, none of which is zero.
func usSocial(text, d []byte) bool {
	if len(text) != 11 || text[3] != text[6] || isDigit(text[3]) || isDigit(text[6]) || text[3] == '.' {
		return false
	}
	area := value(d[:3])
	return area != 0 && area != 666 && area < 900 && value(d[3:5]) != 0 && value(d[5:]) != 0
}

// frenchID has a key that is 97 less the remainder of the number.
func frenchID(d []byte) bool {
	month := value(d[3:5])
	return strings.IndexByte("123478", d[0]) >= 0 && month > 0 && (month <= 12 || month >= 20) && 97-value(d[:13])%97 == value(d[13:])
}

// polishID has a date and a check digit.
func polishID(d []byte) bool {
	sum := 0
	for i, w := range [...]int{1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1} {
		sum += w * int(d[i]-'0')
	}
	month, day := value(d[2:4])%20, value(d[4:6])
	return sum%10 == 0 && month >= 1 && month <= 12 && day >= 1 && day <= 31
}

// brazilianID has two check digits.
func brazilianID(d []byte) bool {
	same := true
	for _, b := range d {
		same = same && b == d[0]
	}
	check := func(n int) bool {
		sum := 0
		for i, b := range d[:n] {
			sum += (n + 1 - i) * int(b-'0')
		}
		return sum*10%11%10 == int(d[n]-'0')
	}
	return !same && check(9) && check(10)
}

// dniLetters are the check letters of Spanish numbers.
const dniLetters = "TRWAGMYFPDXBNJZSQVHLCKE"

// dni is a number of eight digits with its letter.
func dni(d []byte, letter byte) bool { return upper(letter) == dniLetters[value(d)%23] }

// nie is the number of a foreigner: X, Y or Z stand for a digit.
func nie(s []byte) bool {
	i := strings.IndexByte("XYZ", s[0])
	return i >= 0 && upper(s[8]) == dniLetters[(i*10_000_000+value(s[1:8]))%23]
}

// ukInsurance has no check digit, but letters that are never used.
func ukInsurance(s []byte) bool {
	const never = "DFIQUV"
	pair := string(s[:2])
	return strings.IndexByte(never, s[0]) < 0 && strings.IndexByte(never+"O", s[1]) < 0 && s[8] >= 'A' && s[8] <= 'D' &&
		!strings.Contains("BG GB NK KN TN NT ZZ", pair)
}

// italianOdd are the values of characters at odd places, from 0 to 9 and from A to Z.
var italianOdd = [...]int{1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23}

func italianID(s []byte) bool {
	sum := 0
	for i, b := range s[:15] {
		n := int(b - '0')
		if !isDigit(b) {
			n = int(b - 'A')
		}
		if i%2 == 0 {
			n = italianOdd[n]
		}
		sum += n
	}
	return s[15] == byte('A'+sum%26)
}
