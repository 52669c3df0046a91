// A TCP forwarder as Go's io.Copy makes it: two goroutines a connection; on Linux the kernel splices.
package main

import (
	"io"
	"log"
	"net"
	"os"
)

func copyOneWay(to, from *net.TCPConn, done chan<- struct{}) {
	io.Copy(to, from)
	to.CloseWrite()
	done <- struct{}{}
}

func serve(client *net.TCPConn, backend string) {
	defer client.Close()
	conn, err := net.Dial("tcp", backend)
	if err != nil {
		return
	}
	upstream := conn.(*net.TCPConn)
	defer upstream.Close()
	done := make(chan struct{}, 2)
	go copyOneWay(upstream, client, done)
	copyOneWay(client, upstream, done)
	<-done
	<-done
}

func main() {
	listener, err := net.Listen("tcp", os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	for {
		conn, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go serve(conn.(*net.TCPConn), os.Args[2])
	}
}
