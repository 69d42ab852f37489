package config

import "testing"

func TestQuick(t *testing.T) {
	c, r, err := Load(Input{NoConfig: true})
	if err != nil {
		t.Fatal(err)
	}
	_ = c
	t.Log(string(r.YAML("x")))
	_, _, err = Load(Input{NoConfig: true, Flags: map[string][]string{"dim": {"abc"}, "algo": {"loha"}, "data": {"a", "b"}}, Sets: []string{"algoo=3", "dim=3", "train.tran_te=false", "lr=1e309", "network_dim=3"}})
	t.Log(err)
}
