// A link with properties: forwards TCP to a port of the loopback interface with a delay, a rate and now and then a reset.
// Compiled, so that the link is never what limits a measurement.
package main

import (
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"sync/atomic"
	"time"
)

const (
	readBytes = 64 << 10
	inFlight  = 4096 // reads that may be on the way in one direction of one connection
)

var (
	listen     = flag.Int("listen", 0, "port to listen on")
	to         = flag.Int("to", 0, "port to forward to")
	delay      = flag.Duration("delay", 0, "one way; the handshake costs a round trip more")
	connection = flag.Float64("connection-rate", 0, "bytes a second of one connection, each way; 0 is unlimited")
	total      = flag.Float64("rate", 0, "bytes a second of all connections, each way; 0 is unlimited")
	resetEvery = flag.Int64("reset-every", 0, "of so many pieces of answers one is lost with its connection; 0 is never")
)

var answers atomic.Int64

type piece struct {
	due  time.Time
	data []byte
}

// rate spaces bytes; the zero value lets everything pass.
type rate struct {
	perSecond float64
	next      atomic.Int64 // nanoseconds since the epoch
}

// reserve returns when count bytes will have passed.
func (r *rate) reserve(count int, now time.Time) time.Time {
	if r.perSecond == 0 {
		return now
	}
	cost := int64(float64(count) / r.perSecond * 1e9)
	for {
		next := r.next.Load()
		end := max(next, now.UnixNano()) + cost
		if r.next.CompareAndSwap(next, end) {
			return time.Unix(0, end)
		}
	}
}

// carry forwards one direction until it ends, every byte `delay` after it came.
func carry(from, into *net.TCPConn, own, shared *rate, counts bool) {
	way := make(chan piece, inFlight)
	go func() {
		defer close(way)
		for {
			buffer := make([]byte, readBytes)
			count, err := from.Read(buffer)
			if count > 0 {
				now := time.Now()
				passed := own.reserve(count, now)
				if last := shared.reserve(count, now); last.After(passed) {
					passed = last
				}
				way <- piece{passed.Add(*delay), buffer[:count]}
			}
			if err != nil {
				return
			}
		}
	}()
	for each := range way {
		if wait := time.Until(each.due); wait > 0 {
			time.Sleep(wait)
		}
		if counts && hit() {
			reset(from, into)
			break
		}
		if _, err := into.Write(each.data); err != nil {
			from.Close()
			break
		}
	}
	for range way { // the reader must not wait for ever
	}
	into.CloseWrite()
}

func hit() bool {
	return *resetEvery > 0 && answers.Add(1)%*resetEvery == 0
}

func reset(connections ...*net.TCPConn) {
	for _, each := range connections {
		each.SetLinger(0)
		each.Close()
	}
}

func serve(near *net.TCPConn, up, down *rate) {
	defer near.Close()
	time.Sleep(2 * *delay) // the kernel has accepted already: the handshake's round trip is made up for here
	far, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", *to))
	if err != nil {
		return
	}
	defer far.Close()
	distant := far.(*net.TCPConn)
	done := make(chan struct{})
	go func() {
		carry(near, distant, &rate{perSecond: *connection}, up, false)
		close(done)
	}()
	carry(distant, near, &rate{perSecond: *connection}, down, true)
	<-done
}

func main() {
	flag.Parse()
	if *listen == 0 || *to == 0 {
		fmt.Fprintln(os.Stderr, "usage: link -listen PORT -to PORT")
		os.Exit(2)
	}
	listener, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", *listen))
	if err != nil {
		log.Fatal(err)
	}
	up, down := &rate{perSecond: *total}, &rate{perSecond: *total}
	for {
		near, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go serve(near.(*net.TCPConn), up, down)
	}
}
