package main

import "context"

type offersShown struct{}

func (d *demo) trainOffers(context.Context) error { return nil }

func (d *demo) advise(context.Context) error { return d.order() }
