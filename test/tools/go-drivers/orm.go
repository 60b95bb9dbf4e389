package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/jackc/pgx/v5/pgconn"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/clause"
	"gorm.io/gorm/logger"
)

type customer struct {
	ID      int
	Name    string
	Email   string
	Card    *string
	Country *string
	Orders  []order
}

type order struct {
	ID         int
	CustomerID int
	Customer   customer
	Amount     float64
	Status     string
}

type note struct {
	Driver string `gorm:"primaryKey"`
	N      int    `gorm:"primaryKey;autoIncrement:false"`
	Body   *string
}

type salary struct {
	Employee string `gorm:"primaryKey"`
	Salary   int
}

func (salary) TableName() string { return "hr.salaries" }

func through(dsn string) *gorm.DB {
	db, err := gorm.Open(postgres.Open(dsn), &gorm.Config{Logger: logger.Discard})
	check(err)
	return db
}

func orm() {
	db := through("")
	var some []order
	check(db.Preload("Customer").Where("status IN ?", []string{"open", "paid"}).Order("id").Limit(3).Find(&some).Error)
	for i := range some {
		fact(fmt.Sprint("order.", i), fmt.Sprint(some[i].ID, " ", some[i].Status, " ", some[i].Customer.Email))
	}
	var groups []struct {
		Country string
		N       int
	}
	check(db.Model(&order{}).Select(`"Customer".country, count(*) AS n`).Joins("Customer", db.Select("country")).Where(`"Customer".country IS NOT NULL`).
		Group(`"Customer".country`).Having("count(*) > ?", 5).Order(`"Customer".country`).Scan(&groups).Error)
	fact("countries", len(groups))
	var c customer
	check(db.Preload("Orders").First(&c, 900001).Error)
	fact("masked", c.Email+" "+*c.Card)
	fact("orders", len(c.Orders))
	var n int64
	check(db.Model(&customer{}).Where(&customer{Email: "canary@leak.example"}).Count(&n).Error)
	fact("found by a masked value", n)
	var pg *pgconn.PgError
	if errors.As(db.Find(&[]salary{}).Error, &pg) {
		fact("refused", pg.Code+" "+pg.Message)
	}

	shop := through("user=" + os.Getenv("SHOP_USER") + " dbname=shop")
	notes := make([]note, 10)
	for i := range notes {
		body := fmt.Sprint("note ", i)
		notes[i] = note{"orm", i, &body}
	}
	check(shop.CreateInBatches(notes, 4).Error)
	check(shop.Model(&note{}).Where("driver = ?", "orm").Count(&n).Error)
	fact("created", n)
	again := "again"
	check(shop.Clauses(clause.OnConflict{Columns: []clause.Column{{Name: "driver"}, {Name: "n"}}, DoUpdates: clause.AssignmentColumns([]string{"body"})}).
		Create(&note{"orm", 3, &again}).Error)
	var changed []note
	check(shop.Model(&changed).Clauses(clause.Returning{}).Where("driver = ? AND n < ?", "orm", 3).Update("body", nil).Error)
	fact("updated", len(changed))
	var third note
	check(shop.Where(&note{Driver: "orm", N: 3}).First(&third).Error)
	fact("upserted", *third.Body)
	undone := errors.New("undone")
	err := shop.Transaction(func(tx *gorm.DB) error {
		check(tx.Where("driver = ?", "orm").Delete(&note{}).Error)
		check(tx.Transaction(func(inner *gorm.DB) error { return inner.Create(&note{"orm", 99, nil}).Error })) // a savepoint
		return undone
	})
	fact("undone", err == undone)
	fact("deleted", shop.Where("driver = ?", "orm").Delete(&note{}).RowsAffected)
}
