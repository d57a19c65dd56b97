package shop

import (
	"bytes"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"os"
	"strings"
)

// The driver "orders" stands for that of a real database, so that the example needs none: its
// database is a file with a byte for each order, which many processes can use.
func init() { sql.Register("orders", orderDriver{}) }

type orderDriver struct{}

func (orderDriver) Open(name string) (driver.Conn, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	return &orderConn{f}, err
}

type orderConn struct{ *os.File }

func (c *orderConn) Prepare(string) (driver.Stmt, error) { return nil, errors.ErrUnsupported }
func (c *orderConn) Begin() (driver.Tx, error)           { return nil, errors.ErrUnsupported }

func (c *orderConn) ExecContext(_ context.Context, query string, _ []driver.NamedValue) (driver.Result, error) {
	if strings.HasPrefix(query, "INSERT") {
		_, err := c.Write([]byte{'.'})
		return driver.RowsAffected(1), err
	}
	return driver.RowsAffected(0), nil // the table is there
}

func (c *orderConn) QueryContext(context.Context, string, []driver.NamedValue) (driver.Rows, error) {
	b, err := os.ReadFile(c.Name())
	return &orderRows{int64(bytes.Count(b, []byte{'.'})), false}, err
}

type orderRows struct {
	n    int64
	read bool
}

func (*orderRows) Columns() []string { return []string{"count"} }
func (*orderRows) Close() error      { return nil }

func (r *orderRows) Next(row []driver.Value) error {
	if r.read {
		return io.EOF
	}
	r.read, row[0] = true, r.n
	return nil
}
