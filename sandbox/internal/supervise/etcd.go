package supervise

import (
	"flag"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"syscall"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
)

// RunEtcd is the command `etcd`: one member on loopback, without fsync.
func RunEtcd(args []string) error {
	fs := flag.NewFlagSet("etcd", flag.ContinueOnError)
	dir := fs.String("data-dir", "", "data directory")
	client := fs.String("client-url", "http://127.0.0.1:2379", "where the API server connects")
	peer := fs.String("peer-url", "http://127.0.0.1:2380", "never used, etcd insists on it")
	if err := fs.Parse(args); err != nil {
		return err
	}
	cu, err := url.Parse(*client)
	if err != nil {
		return err
	}
	pu, err := url.Parse(*peer)
	if err != nil {
		return err
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	e, err := embed.StartEtcd(etcdConfig(*dir, *cu, *pu))
	if err != nil {
		return err
	}
	select {
	case <-e.Server.ReadyNotify():
	case <-stop:
		e.Close()
		return nil
	case <-time.After(time.Minute):
		e.Close()
		return fmt.Errorf("etcd not ready in a minute")
	}
	select {
	case <-stop:
		e.Close()
		return nil
	case err := <-e.Err():
		return err
	}
}

func etcdConfig(dir string, client, peer url.URL) *embed.Config {
	cfg := embed.NewConfig()
	cfg.Name = "sandbox"
	cfg.Dir = dir
	cfg.LogLevel = "warn"
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	cfg.UnsafeNoFsync = true
	cfg.TickMs, cfg.ElectionMs = 20, 100 // it has only itself to elect
	return cfg
}
