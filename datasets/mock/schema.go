package mock

import "github.com/onmart/onmart/datasets"

// The shop is a star: the data set's parts are the transactions, and each table below is one Parquet file beside
// them. Days are Time columns at midnight UTC; the shop keeps UTC, so that a local day is a UTC day.
//
// Dimension tables are what a shop knows: join on them freely. Calendar, promotions and prices run HorizonDays
// past the last transaction, because a shop knows its own plans. Truth tables are what only the generator knows:
// nothing that learns may read them.
const (
	// UsersFile: one row a user. Every user_id of the transactions is there.
	UsersFile = "users.parquet"
	// StoresFile: one row a store, the online shops first. Every store_id of the transactions is there.
	StoresFile = "stores.parquet"
	// ProductsFile: one row a product. Every product_id of the transactions is there.
	ProductsFile = "products.parquet"
	// PricesFile: one row a list price, by product and day; it holds until the product's next one. The selling price
	// of a day is the list price less the discount of the promotion that covers it, rounded to cents.
	PricesFile = "prices.parquet"
	// CalendarFile: one row a day, from the first day to HorizonDays past the last.
	CalendarFile = "calendar.parquet"
	// PromotionsFile: one row a promotion, of one product or of a whole category. Those of one product never
	// overlap one another or one of its category.
	PromotionsFile = "promotions.parquet"
	// StockoutsFile: one row a product and day on which it could not be bought anywhere.
	StockoutsFile = "stockouts.parquet"
	// StockFile: one row a product that is for sale: the stock when the last day ended.
	StockFile = "stock.parquet"

	// InfluenceFile (truth): one row a link: what influencer_id buys, user_id may buy some days later.
	InfluenceFile = "influence.parquet"
	// FraudsFile (truth): the kind of each fraudulent purchase.
	FraudsFile = "frauds.parquet"
	// TasteUsersFile and TasteProductsFile (truth): the taste vectors. A user's weight for a product, before season,
	// price of the day and stock, is exp(popularity + the vectors' product - z*z/2), where z is the logarithm of the
	// product's first list price over the user's budget, divided by .45.
	TasteUsersFile    = "taste_users.parquet"
	TasteProductsFile = "taste_products.parquet"
	// LostFile (truth): units that were asked for while a product was out of stock, by product and day.
	LostFile = "lost_demand.parquet"
	// TruthFile (truth): everything else that was planted, as JSON; see Truth.
	TruthFile = "truth.json"
)

// HorizonDays is how far past the last transaction the plans of the shop are known.
const HorizonDays = 60

// Values of the column channel, of transactions and of stores.
const (
	ChannelOnline = "online"
	ChannelStore  = "store"
)

// Schema of the transactions: every canonical column. A return is a purchase of its own, some days later or, where a
// line was entered by mistake, minutes later: is_return is 1, quantity and amount are negative, and user, store,
// product and unit_price are those of the line that it undoes. rating (1 to 5) and review are null on most lines.
// The place of an online purchase is the buyer's, of any other the store's.
func Schema() *datasets.Schema {
	return &datasets.Schema{Fields: []datasets.Field{
		{Name: datasets.TransID, Type: datasets.Int64},
		{Name: datasets.Line, Type: datasets.Int64},
		{Name: datasets.TransDatetime, Type: datasets.Time},
		{Name: datasets.ProductID, Type: datasets.String},
		{Name: datasets.UserID, Type: datasets.Int64},
		{Name: datasets.StoreID, Type: datasets.Int64},
		{Name: datasets.TransLong, Type: datasets.Float64},
		{Name: datasets.TransLat, Type: datasets.Float64},
		{Name: datasets.Quantity, Type: datasets.Int64},
		{Name: datasets.UnitPrice, Type: datasets.Decimal, Scale: datasets.AmountScale},
		{Name: datasets.Amount, Type: datasets.Decimal, Scale: datasets.AmountScale},
		{Name: datasets.Channel, Type: datasets.String},
		{Name: datasets.IsReturn, Type: datasets.Int64},
		{Name: datasets.Rating, Type: datasets.Float64, Nullable: true},
		{Name: datasets.Review, Type: datasets.String, Nullable: true},
		{Name: datasets.IsFraud, Type: datasets.Int64, Nullable: true},
	}}
}

// usersSchema: segment is how somebody lives (family, student, single, senior); zip is that of the home; joined is
// the first day on which the user could buy, the stream's first for most.
var usersSchema = schemaOf(
	datasets.Field{Name: datasets.UserID, Type: datasets.Int64},
	datasets.Field{Name: "segment", Type: datasets.String},
	datasets.Field{Name: "zip", Type: datasets.String},
	datasets.Field{Name: "home_long", Type: datasets.Float64},
	datasets.Field{Name: "home_lat", Type: datasets.Float64},
	datasets.Field{Name: "joined", Type: datasets.Time},
)

// storesSchema: channel is online or store; an online shop stands where its warehouse does.
var storesSchema = schemaOf(
	datasets.Field{Name: datasets.StoreID, Type: datasets.Int64},
	datasets.Field{Name: datasets.Channel, Type: datasets.String},
	datasets.Field{Name: "zip", Type: datasets.String},
	datasets.Field{Name: "long", Type: datasets.Float64},
	datasets.Field{Name: "lat", Type: datasets.Float64},
)

// productsSchema: list_price is the first one, unit_cost what the shop pays; launched is the first day of sale,
// discontinued the first day on which it is no longer sold, null while it is; lead_days is from order to arrival
// and review_days from one order to the next.
var productsSchema = schemaOf(
	datasets.Field{Name: datasets.ProductID, Type: datasets.String},
	datasets.Field{Name: "name", Type: datasets.String},
	datasets.Field{Name: "category", Type: datasets.String},
	datasets.Field{Name: "department", Type: datasets.String},
	datasets.Field{Name: "list_price", Type: datasets.Decimal, Scale: datasets.AmountScale},
	datasets.Field{Name: "unit_cost", Type: datasets.Decimal, Scale: datasets.AmountScale},
	datasets.Field{Name: "launched", Type: datasets.Time},
	datasets.Field{Name: "discontinued", Type: datasets.Time, Nullable: true},
	datasets.Field{Name: "lead_days", Type: datasets.Int64},
	datasets.Field{Name: "review_days", Type: datasets.Int64},
)

var pricesSchema = schemaOf(
	datasets.Field{Name: datasets.ProductID, Type: datasets.String},
	datasets.Field{Name: "valid_from", Type: datasets.Time},
	datasets.Field{Name: "list_price", Type: datasets.Decimal, Scale: datasets.AmountScale},
)

// calendarSchema: weekday is 0 on Mondays; holiday names the day, null on others; closed is 1 on days when neither
// the stores nor the online shops sell; promotion names the campaign of the day for a whole category, null on others.
var calendarSchema = schemaOf(
	datasets.Field{Name: "date", Type: datasets.Time},
	datasets.Field{Name: "weekday", Type: datasets.Int64},
	datasets.Field{Name: "holiday", Type: datasets.String, Nullable: true},
	datasets.Field{Name: "closed", Type: datasets.Int64},
	datasets.Field{Name: "promotion", Type: datasets.String, Nullable: true},
)

// promotionsSchema: one of category and product_id is null; both days are included; discount is a share.
var promotionsSchema = schemaOf(
	datasets.Field{Name: "promotion_id", Type: datasets.String},
	datasets.Field{Name: "name", Type: datasets.String},
	datasets.Field{Name: "category", Type: datasets.String, Nullable: true},
	datasets.Field{Name: datasets.ProductID, Type: datasets.String, Nullable: true},
	datasets.Field{Name: "first_day", Type: datasets.Time},
	datasets.Field{Name: "last_day", Type: datasets.Time},
	datasets.Field{Name: "discount", Type: datasets.Float64},
)

var stockoutsSchema = schemaOf(
	datasets.Field{Name: datasets.ProductID, Type: datasets.String},
	datasets.Field{Name: "date", Type: datasets.Time},
)

// stockSchema: on_hand and on_order are units; arrives is the day of the delivery that is on order, null without.
var stockSchema = schemaOf(
	datasets.Field{Name: datasets.ProductID, Type: datasets.String},
	datasets.Field{Name: "on_hand", Type: datasets.Int64},
	datasets.Field{Name: "on_order", Type: datasets.Int64},
	datasets.Field{Name: "arrives", Type: datasets.Time, Nullable: true},
)

var influenceSchema = schemaOf(
	datasets.Field{Name: datasets.UserID, Type: datasets.Int64},
	datasets.Field{Name: "influencer_id", Type: datasets.Int64},
)

var fraudsSchema = schemaOf(
	datasets.Field{Name: datasets.TransID, Type: datasets.Int64},
	datasets.Field{Name: "kind", Type: datasets.String},
)

// lostSchema: requests would have been lines, units their quantity.
var lostSchema = schemaOf(
	datasets.Field{Name: datasets.ProductID, Type: datasets.String},
	datasets.Field{Name: "date", Type: datasets.Time},
	datasets.Field{Name: "requests", Type: datasets.Int64},
	datasets.Field{Name: "units", Type: datasets.Int64},
)

var (
	userTasteSchema    = tasteSchema(datasets.Field{Name: datasets.UserID, Type: datasets.Int64}, "budget")
	productTasteSchema = tasteSchema(datasets.Field{Name: datasets.ProductID, Type: datasets.String}, "popularity")
)

// tasteSchema is an id, a number of the entity's own and the vector: t0, t1 and so on.
func tasteSchema(id datasets.Field, own string) *datasets.Schema {
	s := schemaOf(id, datasets.Field{Name: own, Type: datasets.Float64})
	for d := range tasteDims {
		s.Fields = append(s.Fields, datasets.Field{Name: "t" + string(rune('0'+d)), Type: datasets.Float64})
	}
	return s
}

func schemaOf(fields ...datasets.Field) *datasets.Schema { return &datasets.Schema{Fields: fields} }
