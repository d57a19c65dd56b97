// Package supervisor holds OTP's supervision rules as a pure state machine, with a thin driver.
package supervisor
