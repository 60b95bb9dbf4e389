package postgres

import (
	"encoding/binary"
	"math/big"
	"testing"

	"github.com/jackc/pgx/v5/pgtype"
)

func TestArgText(t *testing.T) {
	m := pgtype.NewMap()
	encode := func(oid uint32, v any) []byte {
		b, err := m.Encode(oid, pgtype.BinaryFormatCode, v, nil)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for name, c := range map[string]struct {
		oid   uint32
		value []byte
		want  string
		no    bool
	}{
		"int4":           {oid: pgtype.Int4OID, value: encode(pgtype.Int4OID, 11), want: "11"},
		"int8":           {oid: pgtype.Int8OID, value: encode(pgtype.Int8OID, int64(-7)), want: "-7"},
		"bool":           {oid: pgtype.BoolOID, value: []byte{1}, want: "true"},
		"text":           {oid: pgtype.TextOID, value: []byte("ab"), want: "ab"},
		"numeric":        {oid: pgtype.NumericOID, value: encode(pgtype.NumericOID, pgtype.Numeric{Int: big.NewInt(1250), Exp: -2, Valid: true}), want: "12.50"},
		"uuid":           {oid: pgtype.UUIDOID, value: make([]byte, 16), want: "00000000-0000-0000-0000-000000000000"},
		"bytes":          {oid: pgtype.ByteaOID, value: []byte{1}, no: true},
		"unknown":        {oid: 0, value: []byte{1}, no: true},
		"not its length": {oid: pgtype.Int4OID, value: []byte{1}, no: true},
	} {
		t.Run(name, func(t *testing.T) {
			var co conn
			co.argTypes, co.args.values = []uint32{c.oid}, [][]byte{c.value}
			got, ok := co.argText(0)
			if ok == c.no || got != c.want {
				t.Errorf("%q, %v; want %q, %v", got, ok, c.want, !c.no)
			}
			if _, ok := co.argText(1); ok {
				t.Error("a parameter that is not there has a text")
			}
		})
	}
}

func TestNoteTypes(t *testing.T) {
	list := func(oids ...uint32) []byte {
		b := binary.BigEndian.AppendUint16(nil, uint16(len(oids)))
		for _, o := range oids {
			b = binary.BigEndian.AppendUint32(b, o)
		}
		return b
	}
	var p prepared
	p.noteTypes(list(23, 0))
	if len(p.types) != 2 || p.types[0] != 23 {
		t.Errorf("types = %v", p.types)
	}
	p.noteTypes(list()) // a Parse that names none does not forget what is known
	if len(p.types) != 2 {
		t.Errorf("types = %v", p.types)
	}
	p.noteTypes(list(25)[:4])
	if len(p.types) != 2 {
		t.Errorf("a broken list was taken: %v", p.types)
	}
}
